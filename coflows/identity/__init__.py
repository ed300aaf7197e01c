"""Who a user is: his keys, where they are kept, and the envelopes sealed and opened with them."""
