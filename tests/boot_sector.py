"""The smallest guests: a boot sector that writes numbered lines to COM1 and then echoes what it receives, and one that
powers off when the ACPI power button is pressed.
"""

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


# button.s, made likewise. Ports are those that SeaBIOS gives the PIIX4; registers: ACPI 6.5, 4.8.3.
#
#         .code16                                sleep:  sti
#         cli                                            hlt                 # until the timer's next tick
#         xor %ax, %ax                                   mov $0x600, %dx     # PM1_STS
#         mov %ax, %ds                                   in %dx, %ax
#         mov %ax, %ss                                   test $1, %ah        # PWRBTN_STS
#         mov $0x7c00, %sp                               jz sleep
#         mov $0x602, %dx     # PM1_EN                   mov $button, %si
#         mov $0x100, %ax     # PWRBTN_EN                call print
#         out %ax, %dx                                   mov $0x604, %dx     # PM1_CNT
#         mov $ready, %si                                mov $0x2000, %ax    # SLP_EN, S5
#         call print                                     out %ax, %dx
#                                                end:    hlt
# print:  lodsb                                          jmp end
#         test %al, %al                          wait:   in %dx, %al
#         jz done                                        test $0x20, %al     # transmitter empty
#         push %ax                                       jz wait
#         mov $0x3fd, %dx     # line status              pop %ax
# (wait stands here)                                     mov $0x3f8, %dx
#                                                        out %al, %dx
# ready:  .asciz "\r\n" READY "\r\n"                     jmp print
# button: .asciz "\r\n" BUTTON "\r\n"            done:   ret
BUTTON_CODE = (
    "fa31c08ed88ed0bc007cba0206b80001efbe487ce81b00fbf4ba0006edf6c40174f5be627ce80a00ba0406b80020eff4ebfd"
    "ac84c0741050bafd03eca82074fb58baf803eeebebc3"
)
READY, BUTTON = "placemat-guest: ready", "placemat-guest: power button"
"""What it prints, the same as the guest of examples/guest does."""


def write_button(path: Path, size_bytes: int) -> None:
    """Write a disk whose guest is ready at once and powers off when its power button is pressed."""
    texts = b"".join(f"\r\n{text}\r\n".encode() + b"\0" for text in (READY, BUTTON))
    code = bytes.fromhex(BUTTON_CODE) + texts
    path.write_bytes((code.ljust(510, b"\0") + b"\x55\xaa").ljust(size_bytes, b"\0"))
