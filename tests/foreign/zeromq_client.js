"use strict";
// node zeromq_client.js ADDRESS COUNT: all five topics through the package zeromq, until COUNT messages came and then
// none for a moment.

const { TOPICS, load, write } = require("./report");
const { Subscriber } = load("zeromq");

async function main(address, count) {
  const sub = new Subscriber({ receiveTimeout: 20000, linger: 0 });
  for (const topic of TOPICS) sub.subscribe(topic);
  sub.connect(address);
  let received = 0;
  try {
    for (;;) {
      write(await sub.receive());
      if (++received === count) sub.receiveTimeout = 200;
    }
  } catch (error) {
    if (error.code !== "EAGAIN") throw error;
  }
  sub.close();
}

main(process.argv[2], Number(process.argv[3]));
