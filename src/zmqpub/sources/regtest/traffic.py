"""Random transactions for a RegtestChain, in the sizes and shapes that mainnet has.

Everything that ends up in a transaction comes from one random generator by exact arithmetic (integers, and floats only
multiplied and cut off), so that a seed gives the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from zmqpub._build import build_transaction
from zmqpub.primitives import TxIn, TxOut
from zmqpub.sources.regtest.chain import RegtestChain
from zmqpub.sources.regtest.coins import Coin, Resolved, resolved
from zmqpub.sources.regtest.consensus import COINBASE_MATURITY
from zmqpub.sources.regtest.resolve import RefusedTransactionError
from zmqpub.sources.regtest.scripts import Kind, Lock, Unlocked, data_carrier, data_lock, key_lock

__all__ = ["Traffic"]

_REPLACEABLE = 0xFFFFFFFD
_LEAST_OUTPUT = 1_000  # satoshis; far enough above dust
_MAX_CLUSTER = 25  # transactions that hang together in the mempool: well within Bitcoin Core's 64
_MAX_CLUSTER_WEIGHT = 100_000  # of one that takes part in a chain; Bitcoin Core's limit is 404,000 a cluster
_CHAINED = 0.12  # how many spend what is not confirmed yet
_ANCHORED = 0.2  # how many are locked until the block they were made in, against fee sniping
_ANNOTATED = 0.08  # how many small ones carry a few bytes behind OP_RETURN
_REMEMBERED = 512  # late arrivals that may be replaced

# How many of a hundred outputs are locked how, each with the number of addresses of that kind.
_KEY_KINDS = ((Kind.P2WSH, 38, 64), (Kind.P2TR, 26, 24), (Kind.NESTED, 10, 32), (Kind.P2SH, 23, 64))
# Outputs in ten thousand that take data when they are spent: pairs of elements, least and most bytes.
_DATA_SHARES = ((150, 1, (100, 1_000)), (60, 3, (1_000, 3_000)), (25, 12, (3_000, 12_000)), (8, 48, (12_000, 40_000)))

# Shapes: how many of a thousand transactions, least and most inputs, least and most outputs.
_Shape = tuple[int, tuple[int, int], tuple[int, int]]
_STEADY: tuple[_Shape, ...] = (
    (400, (1, 1), (1, 1)),
    (345, (1, 1), (2, 2)),
    (95, (2, 2), (1, 1)),
    (75, (2, 2), (2, 2)),
    (30, (3, 3), (2, 2)),
    (20, (1, 1), (3, 4)),
    (11, (1, 2), (5, 30)),
    (1, (1, 3), (50, 200)),
    (22, (4, 16), (1, 1)),
    (1, (30, 100), (1, 1)),
)
_GROWING: tuple[_Shape, ...] = ((700, (1, 1), (2, 2)), (300, (1, 1), (3, 12)))
_SHRINKING: tuple[_Shape, ...] = ((500, (2, 2), (1, 1)), (300, (3, 3), (1, 2)), (200, (4, 12), (1, 2)))

# Fee rates: how many of a hundred transactions pay from (included) to (excluded) so many satoshis a virtual byte.
_FEE_RATES = ((25, 1.0, 2.0), (30, 2.0, 5.0), (25, 5.0, 15.0), (15, 15.0, 50.0), (5, 50.0, 300.0))


class Traffic:
    """The wallets behind a chain's transactions.

    ``coins`` is about how many coins it keeps in the chain. It takes over the chain's ``on_coins`` and
    ``reward_script``: fees come back to it with the coinbases.
    """

    def __init__(self, chain: RegtestChain, random: Random, *, coins: int = 4_000) -> None:
        self._chain = chain
        self._random = random
        self._target = coins
        self._key_locks = _key_locks(random)
        self._locks = _with_data_locks(self._key_locks)
        self._keyring = {lock.script_pubkey: lock for lock in self._locks}
        self._ready: list[Coin] = []  # confirmed when they came here; may be spent or even gone by now
        self._fresh: list[Coin] = []  # made by the mempool's transactions when they came here
        self._fresh_limit = 64
        self._ready_limit = 4 * coins
        self._recent: list[Resolved] = []
        self._recent_place = 0
        self._steady = _spread(_STEADY)
        self._growing = _spread(_GROWING)
        self._shrinking = _spread(_SHRINKING)
        self._rates = _spread(_FEE_RATES)
        chain.on_coins = self._take
        self.pay_next_coinbase()

    def pay_next_coinbase(self) -> None:
        """Choose the address that the next coinbases pay."""
        self._chain.reward_script = self._any(self._key_locks).script_pubkey

    def fund(self) -> None:
        """Mine until there are coins to spend: coinbases, then blocks that split those that are mature."""
        chain = self._chain
        fans = min(max(self._target // 200, 10), 40)
        chain.generate(COINBASE_MATURITY + fans - 1)
        mature, self._ready = self._ready, []
        template = chain.template()
        for number, coin in enumerate(mature):
            size = self._target * (number + 1) // fans - self._target * number // fans
            entry = self._build([coin], [self._open(coin)], [self._any(self._locks) for _ in range(size)], 2.0)
            if entry is None:
                continue
            if template.is_full or not template.add(entry):
                chain.extend(template)
                template = chain.template()
                template.add(entry)
        chain.extend(template)

    # Arrivals

    def arrive(self) -> Resolved | None:
        """Submit a new transaction; None when there is no coin for it, or the mempool is full of better ones."""
        random = self._random.random
        excess = len(self._chain.coins) / self._target - 1.0
        shapes = self._steady
        if random() < abs(excess) * 2.0:
            shapes = self._shrinking if excess > 0 else self._growing
        _, inputs, outputs = shapes[int(random() * len(shapes))]
        coins = self._choose(self._between(inputs))
        if not coins:
            return None
        _, low, high = self._rates[int(random() * len(self._rates))]
        locks, table = [], self._locks
        for _ in range(self._between(outputs)):
            locks.append(table[int(random() * len(table))])
        entry = self._pay(coins, locks, low + random() * (high - low))
        if entry is not None:
            try:
                self._chain.submit(entry)
            except RefusedTransactionError:
                entry = None
        if entry is None:
            self._ready.extend(coins)
            return None
        self._remember(entry)
        self._fresh.extend(entry.created)
        if len(self._fresh) > self._fresh_limit:
            self._fresh = [coin for coin in self._fresh if coin.outpoint[0] in self._chain.mempool]
            self._fresh_limit = 2 * len(self._fresh) + 64
        return entry

    def replace(self, entry: Resolved | None = None) -> Resolved | None:
        """Let ``entry``, by default a late arrival, pay more; None when it, or none of those looked at, can."""
        entry = entry or self._waiting()
        if entry is None:
            return None
        doomed = self._chain.mempool.with_descendants([entry])
        outputs = list(entry.transaction.outputs)
        values = [output.value for output in outputs]
        place = values.index(max(values))
        more = sum(other.fee for other in doomed) - entry.fee + entry.weight // 4 + 1
        more += int(entry.fee * (0.1 + self._random.random()))
        left = outputs[place].value - more
        if left < _LEAST_OUTPUT:
            return None
        outputs[place] = outputs[place]._replace(value=left)
        replacement = self._respend(entry, outputs)
        try:
            self._chain.submit(replacement)
        except RefusedTransactionError:
            return None
        self._remember(replacement)
        self._fresh.extend(replacement.created)
        return replacement

    def contradict(self) -> Resolved | None:
        """A double spend of one that waits and has no unconfirmed parent, not submitted: for a block to hold."""
        entry = self._waiting()
        return None if entry is None or self._chain.mempool.parents(entry) else self.respend(entry)

    def respend(self, entry: Resolved) -> Resolved:
        """Another transaction with the coins of ``entry``, not submitted, that pays somebody else."""
        total = sum(coin.value for coin in entry.spent)
        return self._respend(entry, [TxOut(total - entry.fee, self._any(self._key_locks).script_pubkey)])

    def _respend(self, entry: Resolved, outputs: Sequence[TxOut]) -> Resolved:
        old = entry.transaction
        transaction = build_transaction(old.inputs, outputs, version=old.version, locktime=old.locktime)
        return resolved(transaction, old.inputs, outputs, entry.spent)

    def owns(self, entry: Resolved) -> bool:
        """Whether it spends coins of these wallets only."""
        return all(coin.script_pubkey in self._keyring for coin in entry.spent)

    # Choosing

    def _any(self, locks: Sequence[Lock]) -> Lock:
        return locks[int(self._random.random() * len(locks))]

    def _between(self, bounds: tuple[int, int]) -> int:
        low, high = bounds
        return low if low == high else low + int(self._random.random() * (high - low + 1))

    def _open(self, coin: Coin) -> Unlocked:
        return self._keyring[coin.script_pubkey].unlock(self._random)

    def _remember(self, entry: Resolved) -> None:
        if len(self._recent) < _REMEMBERED:
            self._recent.append(entry)
        else:
            self._recent[self._recent_place] = entry
            self._recent_place = (self._recent_place + 1) % _REMEMBERED

    def _waiting(self) -> Resolved | None:
        """A late arrival that is still in the mempool and has few descendants."""
        mempool = self._chain.mempool
        for _ in range(8 if self._recent else 0):
            entry = self._recent[int(self._random.random() * len(self._recent))]
            if mempool.get(entry.txid) is entry and len(mempool.with_descendants([entry])) <= 4:
                return entry
        return None

    def _choose(self, count: int) -> list[Coin]:
        """Up to ``count`` different coins that can be spent now, at most one of them unconfirmed."""
        first = self._pick_fresh() if self._random.random() < _CHAINED else None
        coins = [] if first is None else [first]
        while len(coins) < count:
            coin = self._pick_ready()
            if coin is None:
                break
            if coin not in coins:
                coins.append(coin)
        if not coins:
            first = self._pick_fresh()
            return [] if first is None else [first]
        return coins

    def _pick_ready(self) -> Coin | None:
        ready, chain = self._ready, self._chain
        confirmed, mempool = chain.coins, chain.mempool
        while ready:
            coin = _take_out(ready, self._random)
            outpoint = coin.outpoint
            if outpoint not in confirmed:
                if outpoint[0] in mempool:  # its block was disconnected
                    self._fresh.append(coin)
            elif mempool.spender(outpoint) is None and (
                not coin.coinbase_height or chain.height + 1 - coin.coinbase_height >= COINBASE_MATURITY
            ):
                return coin
        return None

    def _pick_fresh(self) -> Coin | None:
        fresh, mempool = self._fresh, self._chain.mempool
        for _ in range(8):
            if not fresh:
                break
            coin = _take_out(fresh, self._random)
            parent = mempool.get(coin.outpoint[0])
            if (
                parent is not None
                and parent.weight < _MAX_CLUSTER_WEIGHT // 10
                and mempool.spender(coin.outpoint) is None
                and mempool.cluster_size(parent, _MAX_CLUSTER) < _MAX_CLUSTER
            ):
                return coin
        return None

    def _take(self, coins: Sequence[Coin]) -> None:
        """What the chain's ``on_coins`` calls."""
        # Others may have mined, and spent.
        self._ready.extend([coin for coin in coins if coin.script_pubkey in self._keyring])
        if len(self._ready) > self._ready_limit:
            spender = self._chain.mempool.spender
            alive = {coin.outpoint: coin for coin in self._ready if coin.outpoint in self._chain.coins}
            self._ready = [coin for coin in alive.values() if spender(coin.outpoint) is None]
            self._ready_limit = 2 * len(self._ready) + 4 * self._target

    # Making

    def _pay(self, coins: list[Coin], locks: list[Lock], rate: float) -> Resolved | None:
        """A transaction of ``coins`` and, where they are worth too little, others (appended) or fewer outputs."""
        opened = [self._open(coin) for coin in coins]
        for _ in range(8):
            entry = self._build(coins, opened, locks, rate)
            if entry is not None:
                return entry
            if len(locks) > 1:
                del locks[len(locks) // 2 :]
                continue
            coin = self._pick_ready()
            if coin is None or coin in coins:
                return None
            coins.append(coin)
            opened.append(self._open(coin))
        return None

    def _build(self, coins: Sequence[Coin], opened: Sequence[Unlocked], locks: Sequence[Lock], rate: float) -> Resolved | None:
        """A transaction that shares out what ``coins`` hold, less a fee of ``rate``; None if it is too little."""
        random = self._random.random
        total = 0
        weight = 60
        inputs = []
        for coin, (script_sig, witness, input_weight) in zip(coins, opened, strict=True):
            total += coin.value
            weight += input_weight
            inputs.append(TxIn(coin.outpoint[0], coin.outpoint[1], script_sig, _REPLACEABLE, witness))
        weight += 172 * len(locks)
        left = total - int(rate * weight) // 4 - 1
        count = len(locks)
        if left < count * _LEAST_OUTPUT:
            return None
        outputs = []
        for lock in locks:
            if count == 1:
                value = left
            else:
                spare = left - count * _LEAST_OUTPUT
                value = _LEAST_OUTPUT + int(random() * 2 * spare) // count
                left -= value
                count -= 1
            outputs.append(TxOut(value, lock.script_pubkey))
        if len(outputs) <= 3 and random() < _ANNOTATED:
            outputs.append(TxOut(0, data_carrier(self._random.randbytes(8 + int(random() * 72)))))
        locktime = self._chain.height if random() < _ANCHORED else 0
        transaction = build_transaction(inputs, outputs, version=2, locktime=locktime)
        return resolved(transaction, inputs, outputs, tuple(coins))


def _take_out(coins: list[Coin], random: Random) -> Coin:
    """Remove any one of ``coins``, which keep no order."""
    last = coins.pop()
    place = int(random.random() * (len(coins) + 1))
    if place == len(coins):
        return last
    coin = coins[place]
    coins[place] = last
    return coin


def _spread(table: Sequence[tuple]) -> list[tuple]:  # type: ignore[type-arg]
    """Each row as many times as its first field says, so that a random place finds it as often as it should be."""
    return [row for row in table for _ in range(row[0])]


def _key_locks(random: Random) -> list[Lock]:
    """Locks in a table of some thousand places, for a random place to find each as often as it should be."""
    locks = []
    for kind, share, addresses in _KEY_KINDS:
        made = [key_lock(kind, random.randbytes(20)) for _ in range(addresses)]
        locks += [made[place % addresses] for place in range(share * 96)]
    return locks


def _with_data_locks(key_locks: Sequence[Lock]) -> list[Lock]:
    locks = list(key_locks)
    for share, pairs, sizes in _DATA_SHARES:
        made = [data_lock(kind, pairs, sizes) for kind in (Kind.P2WSH, Kind.P2TR)]
        locks += [made[place % 2] for place in range(share)]
    return locks
