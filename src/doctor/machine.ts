import { readFileSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import { arch, availableParallelism, cpus, platform, release, totalmem } from 'node:os';
import { dirname } from 'node:path';
import { cacheFolder } from '../checkpoints/converted.js';
import { DEVICES } from '../config/common.js';
import { modelCaches } from '../hub/cache.js';
import { availableBytes } from '../memory/available.js';
import { readVersions, type Versions } from '../runs/versions.js';
import { providers } from '../runtime/providers.js';

/** A place that files are kept in, and how much more it takes. */
export interface Disk {
  readonly name: string;
  readonly path: string;
  readonly freeBytes: number;
}

/** What a machine brings. */
export interface Machine {
  readonly versions: Versions;
  readonly system: string;
  readonly cpu: string;
  readonly cores: number;
  /** Instructions that products gain by; undefined where the system does not say. */
  readonly features: readonly string[] | undefined;
  readonly memoryBytes: number;
  readonly availableBytes: number;
  /** Devices that can be asked for, and the providers that the runtime holds. */
  readonly devices: readonly string[];
  readonly providers: readonly string[];
  readonly disks: readonly Disk[];
}

/** @param out where runs are written */
export async function examineMachine(out: string): Promise<Machine> {
  const places = [...modelCaches(), { name: 'prepared weights', path: cacheFolder() }, { name: 'runs', path: out }];
  return {
    versions: readVersions(),
    system: `${platform()} ${release()} ${arch()}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: availableParallelism(),
    features: features(),
    memoryBytes: totalmem(),
    availableBytes: availableBytes(),
    devices: DEVICES,
    providers: providers(),
    disks: await Promise.all(places.map(async (place) => ({ ...place, freeBytes: await freeBytes(place.path) }))),
  };
}

/** Of the instruction sets that matter here, those that Linux says the processor has. */
const NAMES: Readonly<Record<string, string>> = {
  avx2: 'AVX2',
  avx512f: 'AVX-512',
  avx512_vnni: 'AVX-512 VNNI',
  avx_vnni: 'AVX VNNI',
  avx512_bf16: 'AVX-512 BF16',
  amx_int8: 'AMX int8',
  asimd: 'NEON',
  asimddp: 'dot products',
  i8mm: 'int8 matrices',
};

function features(): string[] | undefined {
  try {
    const flags = /^(?:flags|Features)\s*:(.*)$/mu.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1];
    if (flags === undefined) return undefined;
    const has = new Set(flags.trim().split(/\s+/u));
    return Object.keys(NAMES).flatMap((flag) => (has.has(flag) ? [NAMES[flag]!] : []));
  } catch {
    return undefined;
  }
}

/** Of the nearest folder that exists. */
async function freeBytes(path: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  } catch (error) {
    if (dirname(path) === path) throw error;
    return freeBytes(dirname(path));
  }
}
