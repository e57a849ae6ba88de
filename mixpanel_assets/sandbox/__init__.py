"""A stand-in Mixpanel on loopback: a seeded population, faults on request, and a journal of what it served.

It is what the tests compare with, what the demo runs against, and what `mp sandbox` starts. It shares no code with the
client and imports nothing of the rest of the package, so that a mistake of the client cannot hide in it.

    people.py hostile.py events.py -> population.py    the truth, as text
    engage.py export.py behaviors.py expressions.py    which rows an answer holds
    limits.py faults.py effects.py replies.py          refusing, lying, and the words for it
    bodies.py wire.py server.py                        bytes: kept, framed, sent
    journal.py                                         what was asked and answered
    stand_in.py                                        Sandbox: all of it together
"""

from mixpanel_assets.sandbox.faults import Fault
from mixpanel_assets.sandbox.journal import Journal, Request
from mixpanel_assets.sandbox.limits import Limits
from mixpanel_assets.sandbox.population import GROUP_ID, Population
from mixpanel_assets.sandbox.stand_in import Sandbox

__all__ = ["GROUP_ID", "Fault", "Journal", "Limits", "Population", "Request", "Sandbox"]
