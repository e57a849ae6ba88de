"""The kinds of data that are copied, each in a folder of its own, and the rules that they share."""
