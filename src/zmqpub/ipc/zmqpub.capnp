# Bitcoin Core's interfaces between processes, and zmqpub's own. Only interface IDs, ordinals and layouts travel; they are those of
# Bitcoin Core's master branch of August 2026, which v31 is a part of. Where v30 differs: zmqpub_v30.capnp.
#
# Hashes are 32 bytes as they are hashed (not in display order), times are milliseconds, amounts are satoshis.

@0xd2a7c1f38b6e5094;

interface Init @0x8838c700ba5cba65 {
  construct @0 (threadMap :ThreadMap) -> (threadMap :ThreadMap);
  makeEcho @1 (context :Context) -> (result :Echo);
  # v30's makeMining; later versions answer it with an error.
  makeMiningOld2 @2 (context :Context) -> (result :Mining);
  makeMining @3 (context :Context) -> (result :Mining);
  # Not in v31.
  makeRpc @4 (context :Context) -> (result :Rpc);
}

# The threads of the peer: every call that may block names the one that it runs in.
interface ThreadMap @0xee5e37179ad9dc9d {
  makeThread @0 (name :Text) -> (result :Thread);
  # Not in v31.
  makePool @1 (count :UInt32) -> ();
}

interface Thread @0x81c1e2600d0b56c5 {
  getName @0 () -> (result :Text);
}

struct Context @0x9c44e6645d0b22c6 {
  thread @0 :Thread;
  callbackThread @1 :Thread;
}

interface Echo @0xd36b89640dc94399 {
  destroy @0 (context :Context) -> ();
  echo @1 (context :Context, echo :Text) -> (result :Text);
}

interface Rpc @0xacb1d37f0a713129 {
  executeRpc @0 (context :Context, request :Text, uri :Text, user :Text) -> (result :Text);
}

interface Mining @0xf9c68436df3af39e {
  isTestChain @0 (context :Context) -> (result :Bool);
  isInitialBlockDownload @1 (context :Context) -> (result :Bool);
  getTip @2 (context :Context) -> (result :BlockRef, hasResult :Bool);
  waitTipChanged @3 (context :Context, currentTip :Data, timeout :Float64 = 1.7976931348623157e308) -> (result :BlockRef);
  createNewBlock @4 (context :Context, options :BlockCreateOptions, cooldown :Bool = true) -> (result :BlockTemplate);
  checkBlock @5 (context :Context, block :Data, options :BlockCheckOptions) -> (reason :Text, debug :Text, result :Bool);
  interrupt @6 () -> ();
  # From here on not in v31.
  submitBlock @7 (context :Context, block :Data) -> (reason :Text, debug :Text, result :Bool);
  getTransactionsByTxID @8 (context :Context, txids :List(Data)) -> (result :List(Data));
  getTransactionsByWitnessID @9 (context :Context, wtxids :List(Data)) -> (result :List(Data));
}

interface BlockTemplate @0xf9671ad841b2f622 {
  destroy @0 (context :Context) -> ();
  getBlockHeader @1 (context :Context) -> (result :Data);
  getBlock @2 (context :Context) -> (result :Data);
  getTxFees @3 (context :Context) -> (result :List(Int64));
  getTxSigops @4 (context :Context) -> (result :List(Int64));
  getCoinbaseTx @5 (context :Context) -> (result :CoinbaseTx);
  getCoinbaseMerklePath @6 (context :Context) -> (result :List(Data));
  # v31's submitSolution; later versions answer it with an error.
  submitSolutionOld7 @7 (context :Context, version :UInt32, timestamp :UInt32, nonce :UInt32, coinbase :Data) -> (result :Bool);
  waitNext @8 (context :Context, options :BlockWaitOptions) -> (result :BlockTemplate);
  interruptWait @9 () -> ();
  # Not in v31.
  submitSolution @10 (context :Context, version :UInt32, timestamp :UInt32, nonce :UInt32, coinbase :Data)
    -> (reason :Text, debug :Text, result :Bool);
}

struct BlockRef @0xb3be4b8949350369 {
  hash @0 :Data;
  height @1 :Int32;
}

struct BlockCreateOptions @0x80fca083ef81a559 {
  useMempool @0 :Bool = true;
  blockReservedWeight @1 :UInt64 = 8000;
  coinbaseOutputMaxAdditionalSigops @2 :UInt64 = 400;
}

struct BlockWaitOptions @0x9ba437d9de0c452e {
  timeout @0 :Float64 = 1.7976931348623157e308;
  feeThreshold @1 :Int64 = 2100000000000000;
}

struct BlockCheckOptions @0x89f3f39b6c9dd162 {
  checkMerkleRoot @0 :Bool = true;
  checkPow @1 :Bool = true;
}

struct CoinbaseTx @0xdc399c6d34ae7e69 {
  version @0 :UInt32;
  sequence @1 :UInt32;
  scriptSigPrefix @2 :Data;
  witness @3 :Data;
  blockRewardRemaining @4 :Int64;
  requiredOutputs @5 :List(Data);
  lockTime @6 :UInt32;
}
