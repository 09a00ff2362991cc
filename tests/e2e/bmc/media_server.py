"""An HTTP server of one image that stops in the middle until somebody asks for /go: `media_server.py ADDRESS IMAGE`."""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event

GO = Event()
LONGEST_SECONDS = 300


class Handler(BaseHTTPRequestHandler):
    """GET of the image, and of /go."""

    def do_GET(self) -> None:
        """Answer."""
        if self.path == "/go":
            GO.set()
            self.send_error(204)
            return
        content = Path(sys.argv[2]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        middle = len(content) // 2
        self.wfile.write(content[:middle])
        GO.wait(LONGEST_SECONDS)
        self.wfile.write(content[middle:])


if __name__ == "__main__":
    ThreadingHTTPServer((sys.argv[1], 80), Handler).serve_forever()
