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
};
