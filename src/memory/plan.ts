/** Memory that something takes, in bytes, and what it is. */
export interface MemoryPart {
  readonly name: string;
  readonly bytes: number;
}

/** The memory that a stage has resident at its peak, by what takes it. */
export interface MemoryPlan {
  readonly parts: readonly MemoryPart[];
  readonly bytes: number;
}

/** What a process takes that holds no model: Node.js, the package, the runtime's library and its threads. */
const PROCESS = 250 * 2 ** 20;

/** A plan of parts by their names: those of the same name are one, and those that take nothing are left out. */
export function planOf(parts: readonly MemoryPart[]): MemoryPlan {
  const sums = new Map<string, number>();
  for (const { name, bytes } of [...parts, { name: 'Node.js and the runtime', bytes: PROCESS }]) {
    if (bytes > 0) sums.set(name, (sums.get(name) ?? 0) + bytes);
  }
  const all = Array.from(sums, ([name, bytes]) => ({ name, bytes: Math.ceil(bytes) }));
  return { parts: all, bytes: all.reduce((sum, { bytes }) => sum + bytes, 0) };
}

/**
 * The parts for a model, from those for two small ones: each block adds the same, and the graph of a large model takes
 * seconds to build.
 *
 * @param partsOf gives parts of the same names for every number of blocks
 */
export function overLayers<Config extends { readonly numHiddenLayers: number }>(
  config: Config,
  partsOf: (config: Config) => readonly MemoryPart[],
): MemoryPart[] {
  const [few, more] = [2, 3];
  if (config.numHiddenLayers <= more) return [...partsOf(config)];
  const larger = partsOf({ ...config, numHiddenLayers: more });
  return partsOf({ ...config, numHiddenLayers: few }).map(({ name, bytes }, i) => ({
    name,
    bytes: bytes + (config.numHiddenLayers - few) * (larger[i]!.bytes - bytes),
  }));
}
