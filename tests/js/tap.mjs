/** A tap on everything that a node hands to its platform to send: websocket messages, and frames for data channels. */

import { appendFileSync } from "node:fs";

const GAP = new Uint8Array(16); // so that nothing is found across two frames

/** The same platform; what is sent is written to `path` with the ending ".websocket" or ".channel" as well. */
export function tapped(platform, path) {
  const tap = (sender, kind) => {
    const send = sender.send.bind(sender);
    sender.send = (data) => {
      appendFileSync(`${path}.${kind}`, data);
      appendFileSync(`${path}.${kind}`, GAP);
      send(data);
    };
    return sender;
  };
  return {
    ...platform,
    openSocket: (url) => tap(platform.openSocket(url), "websocket"),
    createRtc: async () => {
      const rtc = await platform.createRtc();
      return { ...rtc, connect: (options) => tap(rtc.connect(options), "channel") };
    },
  };
}
