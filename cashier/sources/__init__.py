"""One upstream a file: what is asked, what the answer must look like, and what is made of it."""
