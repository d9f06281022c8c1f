"""Moving data: backups of the log as it is, and exports of the events in it, to be read elsewhere."""
