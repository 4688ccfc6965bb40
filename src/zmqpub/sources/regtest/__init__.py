"""A regtest chain made in process, valid in every byte, whose scripts anybody can satisfy: for simulations and tests.

consensus   what the network demands of a block
scripts     outputs, and what spends them (over taproot and ripemd160)
coins       outputs as coins, transactions with the coins that they spend (resolve finds them)
state       the active chain: coins, blocks, and the way back
mempool     what waits, numbered
template    the next block in the making
chain       RegtestChain: all of these under a caller's control, telling events
traffic     random transactions for it
"""
