"""Operations on memory: each takes the state of a device and returns a record. No class in it is public."""
