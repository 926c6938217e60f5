"""RFC 2131 figure 5: the states of a client, what happens to it, and where that leads.

INIT and INIT-REBOOT have no state of their own: a client in either sends, and is SELECTING or REBOOTING. RENEWING and
REBINDING send the same broadcast (``leasebroker.messages`` says why) and differ in whom they believe: the server of the
lease only, or any.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    SELECTING = "selecting"
    REQUESTING = "requesting"
    REBOOTING = "rebooting"
    BOUND = "bound"
    RENEWING = "renewing"
    REBINDING = "rebinding"


class Event(StrEnum):
    OFFER = "offer"
    ACK = "ack"
    NAK = "nak"
    RETRY = "retry"
    """No answer yet: the same again."""
    SILENCE = "silence"
    """No answer to the last of `REQUESTS`."""
    T1 = "t1"
    T2 = "t2"
    EXPIRY = "expiry"
    DECLINE = "decline"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.SELECTING: {
        Event.OFFER: State.REQUESTING,
        Event.RETRY: State.SELECTING,
        Event.EXPIRY: State.SELECTING,
        Event.DECLINE: State.SELECTING,
    },
    State.REQUESTING: {
        Event.ACK: State.BOUND,
        Event.NAK: State.SELECTING,
        Event.RETRY: State.REQUESTING,
        Event.SILENCE: State.SELECTING,
        Event.EXPIRY: State.REQUESTING,
        Event.DECLINE: State.SELECTING,
    },
    State.REBOOTING: {
        Event.ACK: State.BOUND,
        Event.NAK: State.SELECTING,
        Event.RETRY: State.REBOOTING,
        Event.SILENCE: State.BOUND,
        Event.EXPIRY: State.SELECTING,
        Event.DECLINE: State.SELECTING,
    },
    State.BOUND: {
        Event.T1: State.RENEWING,
        Event.T2: State.REBINDING,
        Event.EXPIRY: State.SELECTING,
        Event.DECLINE: State.SELECTING,
    },
    State.RENEWING: {
        Event.ACK: State.BOUND,
        Event.NAK: State.SELECTING,
        Event.RETRY: State.RENEWING,
        Event.T2: State.REBINDING,
        Event.EXPIRY: State.SELECTING,
        Event.DECLINE: State.SELECTING,
    },
    State.REBINDING: {
        Event.ACK: State.BOUND,
        Event.NAK: State.SELECTING,
        Event.RETRY: State.REBINDING,
        Event.EXPIRY: State.SELECTING,
        Event.DECLINE: State.SELECTING,
    },
}
"""State -> event -> next state; what is not here changes nothing. SELECTING and REQUESTING know EXPIRY because an
address that was taken back is kept for `GRACE` seconds."""
