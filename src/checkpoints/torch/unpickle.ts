/**
 * Reads Python pickles (https://docs.python.org/3/library/pickletools.html) of data alone. A pickle is a program that
 * may ask for any Python function; here a name outside `allowed` ends the reading, and nothing is ever run but the
 * functions that stand there. Of the opcodes there are those that protocols 2 to 4 write for such data.
 */
export type Pickled = null | boolean | number | bigint | string | object;

/** What a name of Python's stands for: a value, or a function of a call's arguments. */
export type Named = { readonly value: object } | { readonly call: (args: readonly Pickled[]) => Pickled };

export interface PickleHost {
  /** By `module.name`. */
  readonly allowed: ReadonlyMap<string, Named>;
  /** The object of a persistent id, which is stored outside the pickle. */
  readonly persistent: (id: Pickled) => Pickled;
}

/** The pickle ends in its middle: where more bytes follow, reading can start again with them. */
export class PickleEnds extends Error {
  constructor() {
    super('its pickle ends in the middle');
  }
}

/** Not a pickle, or not one of plain data. */
export class PickleFault extends Error {}

/** A pickle that asks for a function or class other than those of tensors. */
export class ForbiddenName extends PickleFault {
  readonly global: string;
  constructor(global: string) {
    super(`it asks for ${global}`);
    this.global = global;
  }
}

/** Where the items of an open tuple, list or dictionary begin. */
const MARK = Symbol('mark');
type Mark = typeof MARK;

/** @returns the object, and where its pickle ends */
export function unpickle(bytes: Uint8Array, host: PickleHost, start = 0): { value: Pickled; end: number } {
  const machine = new Machine(bytes, host, start);
  for (;;) {
    const opcode = machine.uint(1);
    if (opcode === STOP) return { value: machine.pop(), end: machine.at };
    const value = values.get(opcode);
    if (value === undefined) act(opcode, machine);
    else machine.push(value(machine));
  }
}

class Machine {
  at: number;
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #host: PickleHost;
  readonly #memo = new Map<number, Pickled>();
  #stack: (Pickled | Mark)[] = [];

  constructor(bytes: Uint8Array, host: PickleHost, start: number) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#host = host;
    this.at = start;
  }

  /** A little-endian unsigned integer of 1, 2, 4 or 8 bytes. */
  uint(size: 1 | 2 | 4 | 8): number {
    const at = this.#advance(size);
    if (size === 1) return this.#view.getUint8(at);
    if (size === 2) return this.#view.getUint16(at, true);
    if (size === 4) return this.#view.getUint32(at, true);
    const value = this.#view.getBigUint64(at, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw new PickleFault(`its pickle names a length of ${value.toString()}`);
    return Number(value);
  }

  int32(): number {
    return this.#view.getInt32(this.#advance(4), true);
  }

  float64(): number {
    return this.#view.getFloat64(this.#advance(8), false);
  }

  bytes(length: number): Uint8Array {
    const at = this.#advance(length);
    return this.#bytes.subarray(at, at + length);
  }

  text(length: number): string {
    try {
      return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(this.bytes(length));
    } catch (error) {
      if (error instanceof PickleEnds) throw error;
      throw new PickleFault('its pickle holds text that is not UTF-8');
    }
  }

  line(): string {
    const end = this.#bytes.indexOf(10, this.at);
    if (end < 0) throw new PickleEnds();
    const line = this.text(end - this.at);
    this.at = end + 1;
    return line;
  }

  /** A two's-complement integer of any length, little-endian. */
  long(length: number): number | bigint {
    const bytes = this.bytes(length);
    let value = 0n;
    for (let i = length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
    if (length > 0 && bytes[length - 1]! >= 128) value -= 1n << BigInt(8 * length);
    return Number.isSafeInteger(Number(value)) ? Number(value) : value;
  }

  push(value: Pickled): void {
    this.#stack.push(value);
  }

  mark(): void {
    this.#stack.push(MARK);
  }

  pop(): Pickled {
    const value = this.#stack.pop();
    if (value === undefined || value === MARK) throw underflow();
    return value;
  }

  top(): Pickled {
    const value = this.#stack.at(-1);
    if (value === undefined || value === MARK) throw underflow();
    return value;
  }

  /** The items above the last mark, in order, without it. */
  popToMark(): Pickled[] {
    const mark = this.#stack.findLastIndex((item) => item === MARK);
    if (mark < 0) throw underflow();
    const items = this.#stack.splice(mark).slice(1);
    return items as Pickled[];
  }

  popMany(count: number): Pickled[] {
    return Array.from({ length: count }, () => this.pop()).reverse();
  }

  drop(): void {
    if (this.#stack.pop() === undefined) throw underflow();
  }

  memoize(key = this.#memo.size): void {
    this.#memo.set(key, this.top());
  }

  recall(key: number): void {
    const value = this.#memo.get(key);
    if (value === undefined) throw new PickleFault(`its pickle recalls ${key}, which it has not stored`);
    this.push(value);
  }

  global(module: string, name: string): void {
    const global = `${module}.${name}`;
    const found = this.#host.allowed.get(global);
    if (found === undefined) throw new ForbiddenName(global);
    this.push(found);
  }

  reduce(): void {
    const [callee, args] = this.popMany(2) as [Pickled, Pickled];
    if (!isCallable(callee) || !Array.isArray(args)) throw new PickleFault('its pickle calls what is no function');
    this.push(callee.call(args));
  }

  persistent(): void {
    this.push(this.#host.persistent(this.pop()));
  }

  append(items: readonly Pickled[]): void {
    const list = this.top();
    if (!Array.isArray(list)) throw new PickleFault('its pickle appends to what is no list');
    for (const item of items) (list as Pickled[]).push(item);
  }

  setItems(items: readonly Pickled[]): void {
    const target = this.top();
    if (!(target instanceof Map) || items.length % 2 !== 0) {
      throw new PickleFault('its pickle sets items of what is no dictionary');
    }
    const dictionary = target as Map<Pickled, Pickled>;
    for (let i = 0; i < items.length; i += 2) dictionary.set(items[i]!, items[i + 1]!);
  }

  /** Attributes of a dictionary (a state dict's versions of its modules) are no content: they are left out. */
  build(): void {
    this.pop();
    if (!(this.top() instanceof Map)) throw new PickleFault('its pickle sets attributes of what is no dictionary');
  }

  #advance(size: number): number {
    const at = this.at;
    if (at + size > this.#bytes.byteLength) throw new PickleEnds();
    this.at += size;
    return at;
  }
}

const underflow = (): PickleFault => new PickleFault('its pickle takes more than it has put down');

const isCallable = (value: Pickled): value is { readonly call: (args: readonly Pickled[]) => Pickled } =>
  typeof value === 'object' && value !== null && 'call' in value && typeof value.call === 'function';

const STOP = 0x2e;

/** Opcodes that put one value down, by their codes in Python's `pickle.py`. */
const values: ReadonlyMap<number, (machine: Machine) => Pickled> = new Map<number, (machine: Machine) => Pickled>([
  [0x32, (m) => m.top()], // DUP
  [0x4e, () => null], // NONE
  [0x88, () => true], // NEWTRUE
  [0x89, () => false], // NEWFALSE
  [0x4b, (m) => m.uint(1)], // BININT1
  [0x4d, (m) => m.uint(2)], // BININT2
  [0x4a, (m) => m.int32()], // BININT
  [0x8a, (m) => m.long(m.uint(1))], // LONG1
  [0x47, (m) => m.float64()], // BINFLOAT
  [0x55, (m) => m.text(m.uint(1))], // SHORT_BINSTRING
  [0x54, (m) => m.text(m.uint(4))], // BINSTRING
  [0x8c, (m) => m.text(m.uint(1))], // SHORT_BINUNICODE
  [0x58, (m) => m.text(m.uint(4))], // BINUNICODE
  [0x8d, (m) => m.text(m.uint(8))], // BINUNICODE8
  [0x43, (m) => m.bytes(m.uint(1))], // SHORT_BINBYTES
  [0x42, (m) => m.bytes(m.uint(4))], // BINBYTES
  [0x7d, () => new Map<Pickled, Pickled>()], // EMPTY_DICT
  [0x5d, () => []], // EMPTY_LIST
  [0x29, () => []], // EMPTY_TUPLE
  [0x85, (m) => m.popMany(1)], // TUPLE1
  [0x86, (m) => m.popMany(2)], // TUPLE2
  [0x87, (m) => m.popMany(3)], // TUPLE3
  [0x74, (m) => m.popToMark()], // TUPLE
]);

/** Carries out any other opcode. */
function act(opcode: number, m: Machine): void {
  switch (opcode) {
    case 0x80: // PROTO
      checkProtocol(m.uint(1));
      break;
    case 0x95: // FRAME
      m.uint(8);
      break;
    case 0x28: // MARK
      m.mark();
      break;
    case 0x30: // POP
      m.drop();
      break;
    case 0x31: // POP_MARK
      m.popToMark();
      break;
    case 0x61: // APPEND
      m.append(m.popMany(1));
      break;
    case 0x65: // APPENDS
      m.append(m.popToMark());
      break;
    case 0x73: // SETITEM
      m.setItems(m.popMany(2));
      break;
    case 0x75: // SETITEMS
      m.setItems(m.popToMark());
      break;
    case 0x71: // BINPUT
      m.memoize(m.uint(1));
      break;
    case 0x72: // LONG_BINPUT
      m.memoize(m.uint(4));
      break;
    case 0x94: // MEMOIZE
      m.memoize();
      break;
    case 0x68: // BINGET
      m.recall(m.uint(1));
      break;
    case 0x6a: // LONG_BINGET
      m.recall(m.uint(4));
      break;
    case 0x63: // GLOBAL
      m.global(m.line(), m.line());
      break;
    case 0x93: // STACK_GLOBAL
      m.global(...(m.popMany(2).map(nameOf) as [string, string]));
      break;
    case 0x52: // REDUCE
      m.reduce();
      break;
    case 0x62: // BUILD
      m.build();
      break;
    case 0x51: // BINPERSID
      m.persistent();
      break;
    default:
      throw new PickleFault(`its pickle has the opcode 0x${opcode.toString(16).padStart(2, '0')}`);
  }
}

function nameOf(value: Pickled): string {
  if (typeof value === 'string') return value;
  throw new PickleFault('its pickle names a function by what is no text');
}

function checkProtocol(protocol: number): void {
  if (protocol > 5) throw new PickleFault(`its pickle is of protocol ${protocol}`);
}
