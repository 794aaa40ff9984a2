"""`magnetar pipeline`: all stages of one file, each once, each again only when what it is made from changes."""
