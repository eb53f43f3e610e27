/** What a page of a test lacks or pretends; each function runs in the page before its scripts. */

export const PAGES = {
  "no-webrtc": () => {
    delete window.RTCPeerConnection;
  },
  "no-simd": () => {
    WebAssembly.validate = () => false;
  },
  "no-storage": () => {
    IDBFactory.prototype.open = () => {
      throw new DOMException("storage is denied to this page", "SecurityError");
    };
  },
  /** `window.battery.set(level)` is what the test turns. */
  battery: () => {
    const battery = Object.assign(new EventTarget(), { charging: false, level: 0.1 });
    battery.set = (level) => {
      battery.level = level;
      battery.dispatchEvent(new Event("levelchange"));
    };
    window.battery = battery;
    navigator.getBattery = async () => battery;
  },
  /** An answer is said to be taken only when the channel it led to is open and has told so, as on a busy machine. */
  "late-answers": () => {
    const { createDataChannel, setRemoteDescription } = RTCPeerConnection.prototype;
    const described = Object.getOwnPropertyDescriptor(RTCPeerConnection.prototype, "remoteDescription").get;
    const [openings, taken] = [new WeakMap(), new WeakSet()];
    RTCPeerConnection.prototype.createDataChannel = function (...given) {
      const channel = createDataChannel.apply(this, given);
      openings.set(this, new Promise((resolve) => channel.addEventListener("open", () => setTimeout(resolve))));
      return channel;
    };
    RTCPeerConnection.prototype.setRemoteDescription = async function (description) {
      await setRemoteDescription.call(this, description);
      if (description.type === "answer") await openings.get(this);
      taken.add(this);
    };
    Object.defineProperty(RTCPeerConnection.prototype, "remoteDescription", {
      get() {
        return taken.has(this) ? described.call(this) : null;
      },
    });
  },
};
