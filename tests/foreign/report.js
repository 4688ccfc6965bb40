"use strict";
// What the drivers share: each message goes to stdout as a count of frames, then length and bytes of each (lengths and
// count: 4 bytes, little-endian).

const CANNOT_LOAD = 77;

exports.TOPICS = ["hashblock", "hashtx", "rawblock", "rawtx", "sequence"];

exports.load = (name) => {
  try {
    return require(name);
  } catch (error) {
    console.error(String(error.message).split("\n")[0]);
    process.exit(CANNOT_LOAD);
  }
};

const number = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};

exports.write = (frames) => {
  const parts = [number(frames.length)];
  for (const frame of frames) parts.push(number(frame.length), frame);
  process.stdout.write(Buffer.concat(parts));
};
