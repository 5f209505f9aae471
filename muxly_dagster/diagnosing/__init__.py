"""What a person would check by hand, and what to do about what is wrong: for `muxly doctor` and the API."""
