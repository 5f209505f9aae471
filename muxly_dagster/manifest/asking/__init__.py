"""What is asked: requests, pages, what an answer means, where a request may go."""
