import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { resolve } from 'node:path';

/**
 * What happens at a write: `kill` the process before it, or in the midst of it (`torn`); the disk is full from then on
 * (`ENOSPC`), or fails once (`EIO`).
 */
export const FAULTS = ['kill', 'torn', 'ENOSPC', 'EIO'] as const;
export type FaultKind = (typeof FAULTS)[number];

/** A fault at the write of this number, counted from 0. */
export interface Fault {
  readonly kind: FaultKind;
  readonly at: number;
}

/** A call that changes what is on the disk. */
export interface Write {
  readonly call: string;
  readonly path: string;
}

type Call = (...args: unknown[]) => unknown;
type Module = Record<string, Call>;

/** Calls that take room on the disk. */
const GROWING = new Set(['open', 'write', 'writev', 'writeFile', 'appendFile', 'mkdir', 'link', 'copyFile']);

/**
 * Watches and disturbs the writes of this process below a folder: every call of Node's that changes a file system goes
 * through here, whichever module makes it. The calls are the real ones; what is added happens before or in the midst of
 * them.
 */
export class Disturbed {
  readonly writes: Write[] = [];
  #fault: Fault | undefined;
  #full = false;
  readonly #paths = new Map<unknown, string>();

  private constructor(private readonly root: string) {}

  /** Begins to watch. */
  static async install(root: string): Promise<Disturbed> {
    const disturbed = new Disturbed(resolve(root));
    const probe = await fs.promises.open(process.execPath, 'r');
    const handle = Object.getPrototypeOf(probe) as Module;
    await probe.close();
    const { promises } = fs;
    disturbed.#wrapOpen(promises as unknown as Module, 'open');
    disturbed.#wrapOpen(fs as unknown as Module, 'openSync');
    for (const call of ['writeFile', 'appendFile', 'rename', 'rm', 'unlink', 'mkdir', 'truncate', 'link', 'copyFile']) {
      disturbed.#wrap(promises as unknown as Module, call, (path) => String(path));
    }
    for (const call of ['writeFile', 'write', 'writev', 'appendFile', 'sync', 'datasync', 'truncate']) {
      disturbed.#wrap(handle, call, (_, self) => disturbed.#paths.get(self));
    }
    for (const call of ['writeSync', 'fsyncSync', 'ftruncateSync', 'write', 'fsync']) {
      disturbed.#wrap(fs as unknown as Module, call, (descriptor) => disturbed.#paths.get(descriptor));
    }
    for (const call of ['writeFileSync', 'renameSync', 'rmSync', 'unlinkSync', 'mkdirSync', 'linkSync']) {
      disturbed.#wrap(fs as unknown as Module, call, (path) => String(path));
    }
    syncBuiltinESMExports();
    return disturbed;
  }

  /** Counts anew, and disturbs as told. */
  begin(fault: Fault | undefined): void {
    this.writes.length = 0;
    this.#fault = fault;
    this.#full = false;
  }

  #wrapOpen(module: Module, name: string): void {
    const original = module[name]!;
    const remember = (opened: unknown, path: string): unknown => {
      this.#paths.set(opened, path);
      return opened;
    };
    const open: Call = (path, flags = 'r', ...rest) => {
      const target = resolve(String(path));
      const failure = flags === 'r' ? undefined : this.#disturb('open', target, () => undefined);
      if (name === 'openSync') {
        if (failure !== undefined) throw failure;
        return remember(original(path, flags, ...rest), target);
      }
      if (failure !== undefined) return Promise.reject(failure);
      return (original(path, flags, ...rest) as Promise<unknown>).then((opened) => remember(opened, target));
    };
    module[name] = open;
  }

  #wrap(module: Module, name: string, pathOf: (first: unknown, self: unknown) => string | undefined): void {
    const original = module[name]!;
    const call = name.replace('Sync', '').replace('fsync', 'sync').replace('ftruncate', 'truncate');
    const blocking = name.endsWith('Sync');
    const disturb = this.#disturb.bind(this);
    module[name] = function (this: unknown, ...args: unknown[]): unknown {
      const path = pathOf(args[0], this);
      const failure =
        path === undefined
          ? undefined
          : disturb(call, resolve(path), () => {
              half(call, resolve(path), args);
            });
      if (failure === undefined) return original.apply(this, args);
      if (blocking) throw failure;
      const callback = args.at(-1);
      if (typeof callback === 'function' && module === (fs as unknown as Module)) {
        process.nextTick(callback, failure);
        return undefined;
      }
      return Promise.reject(failure);
    };
  }

  /** The error that the call gives instead of doing its work; undefined where it does. */
  #disturb(call: string, path: string, halfway: () => void): Error | undefined {
    if (!path.startsWith(this.root)) return undefined;
    const number = this.writes.push({ call, path: path.slice(this.root.length + 1) }) - 1;
    if (this.#full && GROWING.has(call)) return systemError('ENOSPC', call, path);
    if (this.#fault?.at !== number) return undefined;
    const { kind } = this.#fault;
    if (kind === 'torn') halfway();
    if (kind === 'kill' || kind === 'torn') process.kill(process.pid, 'SIGKILL');
    this.#full = kind === 'ENOSPC';
    if (kind === 'EIO') return systemError('EIO', call, path);
    if (kind === 'ENOSPC' && GROWING.has(call)) return systemError('ENOSPC', call, path);
    return undefined;
  }
}

function systemError(code: 'ENOSPC' | 'EIO', syscall: string, path: string): Error {
  return Object.assign(new Error(`${code}: injected, ${syscall} '${path}'`), { code, syscall, path });
}

/** Does the first half of a call by other means: half of the bytes of a write, the first file of a removal. */
function half(call: string, path: string, args: readonly unknown[]): void {
  const bytes = args.find((each): each is Uint8Array => each instanceof Uint8Array);
  if (call.startsWith('write') && bytes !== undefined) {
    originals.appendFile(path, bytes.subarray(0, bytes.length >> 1));
  } else if (call === 'rm') {
    const first = originals.list(path)[0];
    if (first !== undefined) originals.remove(first);
  }
}

/** The calls as they are before anything is wrapped. */
const originals = {
  appendFile: ((append) => (path: string, bytes: Uint8Array) => {
    append(path, bytes);
  })(fs.appendFileSync),
  list: (
    (read) =>
    (folder: string): string[] => {
      try {
        return read(folder, { withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => `${folder}/${entry.name}`);
      } catch {
        return [];
      }
    }
  )(fs.readdirSync),
  remove: ((unlink) => (path: string) => {
    unlink(path);
  })(fs.unlinkSync),
};
