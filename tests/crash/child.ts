import { z } from 'zod';
import { failureOf } from '../../src/cli/report-error.js';
import { Disturbed, FAULTS } from './faults.js';
import { runScenario, SCENARIOS } from './scenarios.js';

/** What the process that is to die is told: runs to begin or resume, one after the other. */
const order = z.object({
  inputs: z.string(),
  root: z.string(),
  jobs: z.array(
    z.object({
      scenario: z.enum(SCENARIOS),
      out: z.string(),
      resume: z.boolean(),
      fault: z.object({ kind: z.enum(FAULTS), at: z.int() }).optional(),
    }),
  ),
});

const { inputs, root, jobs } = order.parse(JSON.parse(process.argv[2]!));
const disturbed = await Disturbed.install(root);
const { signal } = new AbortController();
for (const { scenario, out, resume, fault } of jobs) {
  disturbed.begin(fault);
  const failure = await runScenario(scenario, { inputs, out, resume }, { onEvent: () => undefined }).then(
    () => undefined,
    (error: unknown) => failureOf(error, signal),
  );
  const writes = [...disturbed.writes];
  disturbed.begin(undefined);
  process.stdout.write(`${JSON.stringify({ out, writes, failure })}\n`);
}
