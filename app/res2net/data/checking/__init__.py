"""Looking at a data set before training: what is broken, odd, doubled or out of balance."""
