"""The HTTP server. It needs the extra `serving`; `app.make_app` makes an ASGI application for a `Backend`."""
