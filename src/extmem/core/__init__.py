"""Operations on memory: each takes the state of a device and gives a record. No class in here is public."""
