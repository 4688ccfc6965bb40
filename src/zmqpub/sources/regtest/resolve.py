"""From a transaction to the coins that it spends, with the checks of Bitcoin Core on the way, scripts apart."""

from __future__ import annotations

from collections.abc import Callable

from zmqpub._fast import Transaction
from zmqpub.errors import RefusedTransactionError
from zmqpub.sources.regtest.coins import Coin, Outpoint, Resolved, resolved
from zmqpub.sources.regtest.consensus import MAX_MONEY

__all__ = ["RefusedTransactionError", "resolve"]

_DISABLE_RELATIVE_LOCK = 1 << 31


def resolve(transaction: Transaction, find_coin: Callable[[Outpoint], Coin | None]) -> Resolved:
    """``transaction`` with its coins, which ``find_coin`` knows; RefusedTransactionError in Bitcoin Core's words.

    Relative lock times (BIP 68) are refused: coins do not know their height.
    """
    inputs, outputs = transaction.inputs, transaction.outputs

    def refuse(reason: str) -> RefusedTransactionError:
        return RefusedTransactionError(transaction.txid, reason)

    if not inputs:
        raise refuse("bad-txns-vin-empty")
    if not outputs:
        raise refuse("bad-txns-vout-empty")
    if any(not 0 <= output.value <= MAX_MONEY for output in outputs):
        raise refuse("bad-txns-vout-outofrange")
    if sum(output.value for output in outputs) > MAX_MONEY:
        raise refuse("bad-txns-txouttotal-toolarge")
    spent: dict[Outpoint, Coin] = {}
    for entry in inputs:
        outpoint = (entry.prev_txid, entry.prev_index)
        if outpoint in spent:
            raise refuse("bad-txns-inputs-duplicate")
        coin = find_coin(outpoint)
        if coin is None:
            raise refuse("bad-txns-inputs-missingorspent")
        if transaction.version >= 2 and not entry.sequence & _DISABLE_RELATIVE_LOCK:
            raise refuse("a relative lock time, which this chain does not follow")
        spent[outpoint] = coin
    found = resolved(transaction, inputs, outputs, tuple(spent.values()))
    if found.fee < 0:
        raise refuse("bad-txns-in-belowout")
    return found
