"""`magnetar compare`: its configuration, and the runs that it trains."""
