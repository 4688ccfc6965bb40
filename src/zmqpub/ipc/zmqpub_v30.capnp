# Mining and BlockTemplate as Bitcoin Core v30 has them: the same interface IDs as later, other methods behind the numbers. One file
# cannot hold both, so these few are read by a parser of their own.

@0xe6b90d4c57a1832f;

interface Thread @0x81c1e2600d0b56c5 {
  getName @0 () -> (result :Text);
}

struct Context @0x9c44e6645d0b22c6 {
  thread @0 :Thread;
  callbackThread @1 :Thread;
}

interface Mining @0xf9c68436df3af39e {
  isTestChain @0 (context :Context) -> (result :Bool);
  isInitialBlockDownload @1 (context :Context) -> (result :Bool);
  getTip @2 (context :Context) -> (result :BlockRef, hasResult :Bool);
  waitTipChanged @3 (context :Context, currentTip :Data, timeout :Float64) -> (result :BlockRef);
  createNewBlock @4 (options :BlockCreateOptions) -> (result :BlockTemplate);
  checkBlock @5 (block :Data, options :BlockCheckOptions) -> (reason :Text, debug :Text, result :Bool);
}

interface BlockTemplate @0xf9671ad841b2f622 {
  destroy @0 (context :Context) -> ();
  getBlockHeader @1 (context :Context) -> (result :Data);
  getBlock @2 (context :Context) -> (result :Data);
  getTxFees @3 (context :Context) -> (result :List(Int64));
  getTxSigops @4 (context :Context) -> (result :List(Int64));
  getCoinbaseTx @5 (context :Context) -> (result :Data);
  getCoinbaseCommitment @6 (context :Context) -> (result :Data);
  getWitnessCommitmentIndex @7 (context :Context) -> (result :Int32);
  getCoinbaseMerklePath @8 (context :Context) -> (result :List(Data));
  submitSolution @9 (context :Context, version :UInt32, timestamp :UInt32, nonce :UInt32, coinbase :Data) -> (result :Bool);
  waitNext @10 (context :Context, options :BlockWaitOptions) -> (result :BlockTemplate);
  interruptWait @11 () -> ();
}

struct BlockRef @0xb3be4b8949350369 {
  hash @0 :Data;
  height @1 :Int32;
}

struct BlockCreateOptions @0x80fca083ef81a559 {
  useMempool @0 :Bool;
  blockReservedWeight @1 :UInt64;
  coinbaseOutputMaxAdditionalSigops @2 :UInt64;
}

struct BlockWaitOptions @0x9ba437d9de0c452e {
  timeout @0 :Float64;
  feeThreshold @1 :Int64;
}

struct BlockCheckOptions @0x89f3f39b6c9dd162 {
  checkMerkleRoot @0 :Bool;
  checkPow @1 :Bool;
}
