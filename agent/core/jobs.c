/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/core/jobs.h"

#include <stdlib.h>

#include "base/check.h"

struct job {
	uv_work_t request;
	struct jobs *jobs;
	job_work_fn *work;
	job_done_fn *done;
	void *ctx;
};

void jobs_init(struct jobs *jobs, uv_loop_t *loop) {
	*jobs = (struct jobs){.loop = loop};
}

static void run(uv_work_t *request) {
	struct job *job = request->data;

	job->work(job->ctx);
}

static void ended(uv_work_t *request, int status) {
	struct job *job = request->data;
	struct jobs *jobs = job->jobs;

	require(status == 0); /* jobs are never cancelled */
	require(jobs->running > 0);
	jobs->running--;
	job->done(job->ctx);
	free(job);
	if (jobs->running == 0 && jobs->on_idle != NULL)
		jobs->on_idle(jobs->ctx);
}

int jobs_start(struct jobs *jobs, job_work_fn *work, job_done_fn *done, void *ctx,
	struct cede_error *reterr) {
	struct job *job = calloc(1, sizeof *job);

	if (job == NULL)
		return CEDE_FAIL_MEMORY(reterr);
	*job = (struct job){.jobs = jobs, .work = work, .done = done, .ctx = ctx};
	job->request.data = job;
	int r = uv_queue_work(jobs->loop, &job->request, run, ended);
	if (r < 0) {
		free(job);
		return CEDE_FAIL(reterr, CEDE_ERR_IO, "start a job: %s", uv_strerror(r));
	}
	jobs->running++;
	return CEDE_OK;
}
