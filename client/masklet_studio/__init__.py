"""`masklet studio`: a page to click, watch, correct and export, and the gateway between the page and a server.

The gateway is a client of the public `masklet.AsyncClient`, like any other program. It keeps projects, gives frames by
their number, and passes masks on. `masklet_studio.app.Studio` is the application, `masklet_studio.cli` the command.
"""
