"""A stand-in Mixpanel on loopback: a seeded population, faults on request, and a journal of what it served."""
