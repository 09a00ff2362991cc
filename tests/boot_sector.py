"""The smallest guest: a boot sector that writes numbered lines to COM1 and then echoes what it receives."""

from pathlib import Path

# boot.s, made with: as --32 boot.s -o boot.o && ld -m elf_i386 -Ttext 0x7c00 --oformat binary boot.o
#
#         .code16                                echo:   mov $0x3fd, %dx     # line status
#         cli                                            in %dx, %al
#         xor %ax, %ax                                   test $1, %al        # something came
#         mov %ax, %ds                                   jz echo
#         mov %ax, %ss                                   mov $0x3f8, %dx
#         mov $0x7c00, %sp                               in %dx, %al
#         xor %bx, %bx        # number of the line       call put
# line:   mov $'L', %al                                  jmp echo
#         call put                               put:    push %ax
#         mov $4, %cx                                    mov $0x3fd, %dx
#         mov %bx, %si                           wait:   in %dx, %al
# digit:  rol $4, %si                                    test $0x20, %al     # transmitter empty
#         mov %si, %ax                                   jz wait
#         and $15, %al                                   pop %ax
#         add $'0', %al                                  mov $0x3f8, %dx
#         cmp $'9', %al                                  out %al, %dx
#         jbe small                                      ret
#         add $39, %al        # 'a' - '9' - 1    .org 510
# small:  call put                               .word 0xaa55
#         loop digit
#         mov $'\r', %al
#         call put
#         mov $'\n', %al
#         call put
#         inc %bx
#         cmp $LINES, %bx
#         jne line
CODE = (
    "fa31c08ed88ed0bc007c31dbb04ce83b00b9040089dec1c60489f0240f04303c3976020427e82400e2ecb00de81d00b00ae81800"
    "4381fb{lines}75d1bafd03eca80174f8baf803ece80200ebef50bafd03eca82074fb58baf803eec3"
)


def line(number: int) -> str:
    """The text of a line."""
    return f"L{number:04x}"


def write(path: Path, lines: int) -> list[str]:
    """Write a disk whose guest prints so many lines (1 to 65535); returns the QEMU options that boot it."""
    code = bytes.fromhex(CODE.format(lines=lines.to_bytes(2, "little").hex()))
    path.write_bytes(code.ljust(510, b"\0") + b"\x55\xaa")
    drive = f"file={path},format=raw,if=ide"
    return ["-accel", "tcg", "-nodefaults", "-display", "none", "-m", "16", "-drive", drive]
