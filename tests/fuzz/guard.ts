/** A request for memory that is out of proportion to the file being read. */
export class Greedy extends Error {
  constructor(readonly bytes: number) {
    super(`asked for ${bytes} bytes at once`);
  }
}

let limit = Infinity;

/** Runs `work`; an array or buffer of more than `bytes` that it asks for is refused with {@link Greedy}. */
export async function within<T>(bytes: number, work: () => Promise<T>): Promise<T> {
  limit = bytes;
  try {
    return await work();
  } finally {
    limit = Infinity;
  }
}

function weigh(bytes: number): void {
  if (bytes > limit) throw new Greedy(bytes);
}

/** Bytes that `new Constructor(first)` takes of its own; an existing buffer costs nothing. */
function sizeOf(first: unknown, perElement: number): number {
  if (typeof first === 'number') return first * perElement;
  return Array.isArray(first) ? first.length * perElement : 0;
}

const ARRAYS = [
  ['ArrayBuffer', 1],
  ['Uint8Array', 1],
  ['Int8Array', 1],
  ['Uint16Array', 2],
  ['Int16Array', 2],
  ['Uint32Array', 4],
  ['Int32Array', 4],
  ['Float32Array', 4],
  ['Float64Array', 8],
  ['BigInt64Array', 8],
  ['BigUint64Array', 8],
  ['Array', 8],
] as const;

/** Puts a scale before everything that reserves memory by number: typed arrays, `Array`, `Buffer`, `String.repeat`. */
export function installGuard(): void {
  for (const [name, perElement] of ARRAYS) {
    const original = globalThis[name];
    const guarded = new Proxy(original, {
      construct(target, args: unknown[], newTarget) {
        weigh(sizeOf(args[0], perElement));
        return Reflect.construct(target, args, newTarget) as object;
      },
    });
    Object.defineProperty(globalThis, name, { value: guarded, configurable: true, writable: true });
  }
  for (const name of ['alloc', 'allocUnsafe', 'allocUnsafeSlow']) guardMethod(Buffer, name, (_, count) => count);
  guardMethod(String.prototype, 'repeat', (self, count) => String(self).length * count * 2);
}

function guardMethod(owner: object, name: string, bytesOf: (self: unknown, count: number) => number): void {
  const original = Reflect.get(owner, name) as (...args: unknown[]) => unknown;
  const guarded = new Proxy(original, {
    apply(target, self: unknown, args: unknown[]) {
      weigh(bytesOf(self, Number(args[0])));
      return Reflect.apply(target, self, args);
    },
  });
  Object.defineProperty(owner, name, { value: guarded, configurable: true, writable: true });
}
