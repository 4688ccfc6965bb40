"use strict";
// node node_lightning_client.js RAWTX_ADDRESS RAWBLOCK_ADDRESS COUNT: what @node-lightning/bitcoind hands to its
// application, as two frames: the event's name and the body.

const Module = require("module");
const { load, write } = require("./report");

// It is written for zeromq 5, whose binaries end with Node.js 14; zeromq 6 brings that interface along under another name.
const resolve = Module._resolveFilename;
Module._resolveFilename = (name, ...rest) => resolve(name === "zeromq" ? "zeromq/v5-compat" : name, ...rest);

const { BitcoindClient } = load("@node-lightning/bitcoind");

const [rawtx, rawblock, count] = process.argv.slice(2);
const client = new BitcoindClient({ zmqpubrawtx: rawtx, zmqpubrawblock: rawblock });
let received = 0;
for (const event of ["rawtx", "rawblock"]) {
  client.on(event, (body) => {
    write([Buffer.from(event), body]);
    if (++received === Number(count)) setTimeout(() => process.exit(0), 200);
  });
}
client.subscribeRawTx();
client.subscribeRawBlock();
setTimeout(() => process.exit(1), 20000);
