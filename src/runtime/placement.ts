import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import type { Placement } from './protocol.js';

/** What is read of an event of the runtime's profile: nodes name their provider and what they made. */
const event = z.object({
  cat: z.string().optional(),
  args: z
    .object({
      op_name: z.string().optional(),
      provider: z.string().optional(),
      output_type_shape: z.array(z.record(z.string(), z.array(z.number()))).optional(),
    })
    .loose()
    .optional(),
});

/** The kinds of nodes in the profile that the runtime wrote under a path that starts like this. */
export async function readPlacement(trace: string): Promise<Placement[]> {
  const [folder, prefix] = [path.dirname(trace), `${path.basename(trace)}_`];
  const file = (await readdir(folder)).find((name) => name.startsWith(prefix));
  if (file === undefined) throw new Error(`the runtime wrote no profile ${trace}_*`);
  const events = z.array(event).parse(JSON.parse(await readFile(path.join(folder, file), 'utf8')));
  const kinds = new Map<string, Placement>();
  for (const { cat, args } of events) {
    if (cat !== 'Node' || args?.op_name === undefined || args.provider === undefined) continue;
    const outputs = (args.output_type_shape ?? []).flatMap((output) => Object.keys(output));
    const placement = { op: args.op_name, provider: args.provider, outputs };
    kinds.set(JSON.stringify(placement), placement);
  }
  return [...kinds.values()];
}
