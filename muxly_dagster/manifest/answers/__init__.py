"""What comes back: answers of every kind, made into JSON pages."""
