"""The machine room: writer, readers, waiting, closing, forking, and several processes on one file."""
