"""Awkward but legal values, as raw JSON text: each of them broke some client of this API, or could.

Belongs here: text that a parser may mangle. Not here: broken bodies (faults.py). Raw text, because Python's own JSON
writer would already have normalised half of it.
"""

_LONG = "long " * 4_000
_DEEP = '{"d":' * 60 + "[[[0]]]" + "}" * 60

MEMBERS: tuple[str, ...] = (
    '"big":9007199254740993,"bigger":123456789012345678901234567890,"low":-9223372036854775809',
    '"overflow":1e400,"underflow":1e-400,"minus_zero":-0.0',
    '"price":1.10,"exponent":1E5,"plus":1e+2,"precise":0.1000000000000000055511151231257827',
    '"separators":"a\u2028b\u2029c\u0085d","escaped":"a\\u2028b\\u2029c\\u0085d\\u000b\\f"',
    '"nul":"a\\u0000b","controls":"\\u0001\\u001f\\t\\r\\n"',
    '"lone":"\\ud800","lone_low":"x\\udc00y","pair":"\\ud83d\\ude00"',
    '"emoji":"\U0001f469\u200d\U0001f680","\U0001f600":"key","combining":"e\u0301"',
    '"Name":"a","name":"b","NAME":"c","$name_":"d","name_":"e","userName":1,"$userName":2,"username":3',
    '"a.b":1,"a\\"b":2,"a b":3,"":4,"a/b":5,"a\\\\b":6,"select":7,"\'; drop table x; --":8',
    f'"deep":{_DEEP}',
    f'"text":"{_LONG}"',
    '"slashes":"a\\/b","html":"<b>&amp;</b>","quotes":"\\"\'`"',
    '"properties":{"distinct_id":3},"event_name":"not me","synced_at":"never","last_seen":5,"insert_id":null',
    '"empty_list":[],"empty_object":{},"nothing":null,"mixed":[1,"1",1.0,true,null,{"a":[]}]',
)


def hostile_member(number: int) -> str:
    """What row `number` has more than others: nothing for every second row, else `,"key":value...`."""
    return "" if number % 2 else "," + MEMBERS[(number // 2) % len(MEMBERS)]


def hostile_profile_member(number: int) -> str:
    """The same for a profile, which may also use the names that an event's own columns come from."""
    more = ',"distinct_id":"not me","time":"noon","event":7' if number % 10 == 5 else ""
    return hostile_member(number) + more


def hostile_id(number: int) -> str:
    """The JSON text of an awkward distinct_id: a number beyond 2^53, a device id, quotes, emoji, spaces. Unique."""
    return (
        f"{9007199254740993 + number}",
        f'"$device:{number:08x}-0000"',
        f'"o\\"brien \\\\{number}"',
        f'"\U0001f600 {number}"',
        f"{number}",
        f'" {number} "',
    )[(number // 5) % 6]
