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

# ---- zmqpub's own: a publisher in a process of its own. docs/notifications.md says what the calls promise. ----

# The bootstrap capability of `zmqpub -ipcfd N`.
interface PublisherInit @0xb7d41e90a3c58f26 extends(Init) {
  # Bind and begin. Nothing is bound where there is a failure; the call may then be made again. One publisher at a time.
  makeNotifications @0 (options :PublisherOptions) -> (notifications :Notifications, state :PublisherState, failure :Failure);
}

struct PublisherOptions @0xe1835fb0c72d946a {
  # Bitcoin Core's: zmqpubrawblock, zmqpubrawblockhwm …, and zmqpubreplay. A negation (nozmqpubrawtx) has the value 1.
  options @0 :List(Option);
  # Those of zmqpub.Settings, by their names there.
  settings @1 :List(Setting);
  # Where relative paths begin; empty: where the child was started.
  directory @2 :Text;
  # A file that both map, through which large bodies may go (Event.body.lane); empty: none.
  lane @3 :Text;
  # Notifiers beside those of the options, with marks of their own: after the end of a child, those that it had.
  notifiers @4 :List(ActiveNotifier);
  # Whether this child goes on where one before it ended: the first events that come are those behind the first `journaled` ones of
  # the journal, and as many of them as the journal file holds are skipped. False: what it holds is recognized by its content.
  resume @5 :Bool;
  # What the last settled answer of the child before called journaled, or its state, if there was none.
  journaled @6 :UInt64;
}

struct Option @0xa94c07e2d816b35f {
  name @0 :Text;
  values @1 :List(Text);
}

struct Setting @0xf28be5163a70c9d4 {
  name @0 :Text;
  value :union {
    none @1 :Void;
    integer @2 :Int64;
    number @3 :Float64;
    text @4 :Text;
  }
}

struct PublisherState @0xc06f92d7b4e1385a {
  epoch @0 :Data;
  notifiers @1 :List(ActiveNotifier);
  # Empty without the option zmqpubreplay.
  replayAddress @2 :Text;
  # Events in the journal, ever; 0 where there is no journal file, or a new one.
  journaled @3 :UInt64;
  processId @4 :UInt32;
  # Whether the lane could be opened.
  lane @5 :Bool;
  # Whether events that the journal file holds are not looked for any more.
  settled @6 :Bool;
}

struct ActiveNotifier @0x8f1d63ca5b02e794 {
  type @0 :Text;
  address @1 :Text;
  hwm @2 :UInt32;
}

interface Notifications @0xd3586ab41f9e027c {
  # Into the journal, in order. The answer is the acknowledgement: these events are journaled, recognized, skipped or refused.
  publish @0 (events :List(Event)) -> (journaled :UInt64, settled :Bool, refused :List(Refusal));
  # Wait until all that was published before the call is with libzmq; milliseconds, infinity for as long as it takes.
  flush @1 (timeout :Float64 = inf) -> (flushed :Bool);
  activeNotifiers @2 () -> (notifiers :List(ActiveNotifier));
  # From the next event on. hwm: messages.
  addNotifier @3 (topic :Text, address :Text, hwm :UInt32 = 1000) -> (notifier :ActiveNotifier, failure :Failure);
  removeNotifier @4 (topic :Text, address :Text) -> (failure :Failure);
  # Who is asked when a subscriber asks the replay endpoint for a snapshot; null: nobody.
  setSnapshot @5 (source :SnapshotSource) -> ();
  # zmqpub.Stats as a JSON object, by the names of its fields.
  stats @6 () -> (json :Text);
  # linger: milliseconds, infinity for as long as it takes; negative: as the setting says.
  close @7 (linger :Float64 = -1) -> ();
}

struct Event @0x9b7ac2e80d46f153 {
  kind @0 :EventKind;
  # Of the two mempool events.
  mempoolSequence @1 :UInt64;
  body :union {
    # The serialization of the transaction or block.
    data @2 :Data;
    # The block of the last event before this one that was about a block, in this call or one before.
    same @3 :Void;
    # Of a removed transaction, where its serialization is not known any more.
    txid @4 :Data;
    # The serialization lies in the lane, and stays there unchanged until the answer has come.
    lane :group {
      offset @5 :UInt64;
      size @6 :UInt64;
    }
  }
}

enum EventKind @0xbe50d918c3f7264a {
  transactionAdded @0;
  transactionRemoved @1;
  blockConnected @2;
  blockDisconnected @3;
  tip @4;
}

struct Refusal @0xdc2476e5901bfa38 {
  # Which of the call's events, from 0.
  index @0 :UInt32;
  failure @1 :Failure;
}

struct Failure @0xaa3fd8061b95c7e2 {
  union {
    none @0 :Void;
    config @1 :List(Problem);
    bind :group {
      option @2 :Text;
      address @3 :Text;
      errno @4 :Int32;
      cause @5 :Text;
    }
    journal :group {
      path @6 :Text;
      offset @7 :UInt64;
      expected @8 :Text;
      got @9 :Text;
      hint @10 :Text;
      errno @11 :Int32;
    }
    decode :group {
      what @12 :Text;
      offset @13 :UInt64;
      expected @14 :Text;
      got @15 :Text;
    }
    closed @16 :Text;
    other @17 :Text;
  }
}

struct Problem @0xc7e10b5f3d82a694 {
  option @0 :Text;
  # Null where the option itself is the problem.
  value @1 :Text;
  message @2 :Text;
}

# Implemented by the parent.
interface SnapshotSource @0xe65b90f1a72c4d83 {
  # height below 0: not known; tip null: not known; txids: the mempool's, 32 bytes each, one behind the other, null: not known.
  take @0 () -> (tip :Data, height :Int64 = -1, txids :Data, mempoolSequence :UInt64);
}
