"""The command line: one thin command per file, dispatched by `magnetar.cli.main`."""
