"""Tests of the HTTP client, against real servers on the loopback interface."""
