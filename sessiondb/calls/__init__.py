"""What a service can be asked beyond ADK's contract, a module for each subject; the service inherits from all of them."""
