"""The company's services: real HTTP servers over the records of one sandbox world."""
