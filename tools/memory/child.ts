/** Runs one stage for two steps and says how much memory the process had at its peak. */
import { z } from 'zod';
import { loadConfig } from '../../src/config/index.js';
import { grpo } from '../../src/stages/grpo.js';
import { rm } from '../../src/stages/rm.js';
import { sft } from '../../src/stages/sft.js';

const order = z.object({ stage: z.enum(['sft', 'rm', 'grpo']), sets: z.array(z.string()) });
const { stage, sets } = order.parse(JSON.parse(process.argv[2]!));
const context = { onEvent: () => undefined };
const steps = [`${stage}.maxSteps=2`, `${stage}.evalSteps=2`];
if (stage === 'sft') await sft(await loadConfig({ stage, sets: [...sets, ...steps] }), context);
if (stage === 'rm') await rm(await loadConfig({ stage, sets: [...sets, ...steps, 'rm.baselines=false'] }), context);
if (stage === 'grpo') await grpo(await loadConfig({ stage, sets: [...sets, ...steps] }), context);
process.send!({ peakBytes: process.resourceUsage().maxRSS * 1024 });
process.disconnect();
