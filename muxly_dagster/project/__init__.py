"""What a user declares: models of the project, loading it from files, and the places that error messages name."""
