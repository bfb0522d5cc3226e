import { arch, availableParallelism, cpus, loadavg, platform, totalmem } from 'node:os';
import { readVersions, type Versions } from '../src/runs/versions.js';

/** Where a benchmark ran. */
export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryBytes: number;
  readonly system: string;
  /** Average number of runnable threads over the last minute, before anything was measured. */
  readonly loadBefore: number;
  readonly versions: Versions;
}

export const describeMachine = (): Machine => ({
  cpu: cpus()[0]?.model.trim() ?? 'unknown',
  cores: availableParallelism(),
  memoryBytes: totalmem(),
  system: `${platform()} ${arch()}`,
  loadBefore: loadavg()[0]!,
  versions: readVersions(),
});
