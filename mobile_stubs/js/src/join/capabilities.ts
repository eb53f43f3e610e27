/** What this browser must be able to do; each lack with what to do about it. */

/** A lack: what is missing, and the way out. */
export interface Lack {
  readonly missing: string;
  readonly next: string;
}

/** A module with one SIMD instruction, i8x16.splat, in a function: valid only where SIMD is known. */
const SIMD = Uint8Array.of(
  0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11,
);

/** Everything that is missing; empty where the page can work. */
export async function lacks(): Promise<readonly Lack[]> {
  const found: Lack[] = [];
  const lack = (missing: string, next: string) => void found.push({ missing, next });
  if (!isSecureContext || globalThis.crypto?.subtle === undefined) {
    lack("This page came over an address without TLS, where browsers have no cryptography.", "Open it by https://, or on the server's own machine by http://localhost.");
    return found;
  }
  if (typeof RTCPeerConnection === "undefined") {
    lack("This browser has no WebRTC, without which no peer can be reached.", "Allow it in settings or extensions, or use another browser.");
  }
  if (typeof WebAssembly === "undefined" || !WebAssembly.validate(SIMD)) {
    lack("This browser has no WebAssembly with SIMD, in which models are trained.", "Update it, or switch off its lockdown or “no JIT” mode for this site.");
  }
  if (typeof DecompressionStream === "undefined") {
    lack("This browser cannot unpack compressed streams.", "Update it; those of 2023 and later can.");
  }
  if (!(await hasEd25519())) {
    lack("This browser's cryptography has no Ed25519 signatures.", "Update it: Chrome and Edge 137, Firefox 129 and Safari 17 have them.");
  }
  if (!(await hasStorage())) {
    lack("This browser denies storage, so that a round could not be remembered.", "Leave the private window, or allow this site to keep data.");
  }
  return found;
}

async function hasEd25519(): Promise<boolean> {
  try {
    await crypto.subtle.generateKey("Ed25519", false, ["sign", "verify"]);
    return true;
  } catch {
    return false;
  }
}

function hasStorage(): Promise<boolean> {
  return new Promise((resolve) => {
    try {
      const request = indexedDB.open("peerplan-probe");
      request.onerror = () => resolve(false);
      request.onsuccess = () => {
        request.result.close();
        indexedDB.deleteDatabase("peerplan-probe");
        resolve(true);
      };
    } catch {
      resolve(false);
    }
  });
}
