"""Events that services post, on their way into the inbox, whatever protocol they came by."""
