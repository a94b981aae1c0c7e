"""The page and its JSON counterparts."""

import json
import uuid
from datetime import timedelta
from typing import Any

from django import forms
from django.db.models import Count, Max, Min
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.http import require_POST, require_safe

from ticks.forms import FORMS, AddForm, SlowForm
from ticks.models import Tick
from ticks.queues import queue

PAGE_TICKS = 20
PAGE_RESULTS = 10
API_TICKS = 100
API_TICKS_MAX = 5000
# The page looks at the senders of so many minutes.
WINDOW_MINUTES = 5

TICK_FIELDS = (
    "task_id",
    "task",
    "entry",
    "scheduled",
    "sent",
    "sequence",
    "sender_host",
    "sender_pid",
    "sender_started",
    "received",
    "worker_host",
    "worker_pid",
    "deliveries",
)


def schedulers() -> list[dict[str, Any]]:
    """Return who sent the proving entry's ticks of the last minutes, the latest first.

    Each has host, pid, started, ticks, missing (holes in its sequence), last_sent, age (of its
    last tick, in seconds) and active: it still ticks, and nobody began after its last tick.
    """
    now = timezone.now()
    senders = list(
        Tick.objects.filter(entry=queue.ENTRY, sent__gte=now - timedelta(minutes=WINDOW_MINUTES))
        .values("sender_host", "sender_pid", "sender_started")
        .annotate(
            ticks=Count("sequence", distinct=True),
            lowest=Min("sequence"),
            highest=Max("sequence"),
            first_sent=Min("sent"),
            last_sent=Max("sent"),
        )
        .order_by("-last_sent")
    )
    latest_start = max((sender["first_sent"] for sender in senders), default=now)
    return [
        {
            "host": sender["sender_host"],
            "pid": sender["sender_pid"],
            "started": sender["sender_started"],
            "ticks": sender["ticks"],
            "missing": sender["highest"] - sender["lowest"] + 1 - sender["ticks"],
            "last_sent": sender["last_sent"],
            "age": round((now - sender["last_sent"]).total_seconds(), 1),
            "active": sender["last_sent"] >= latest_start
            and now - sender["last_sent"] < timedelta(seconds=queue.SILENCE),
        }
        for sender in senders
    ]


def page(request: HttpRequest, bound: forms.Form | None = None, error: str = "") -> HttpResponse:
    """Render the page, with `bound` in place of its form and an `error` above the forms."""
    found = schedulers()
    context = {
        "now": timezone.now(),
        "schedulers": found,
        "active": [scheduler for scheduler in found if scheduler["active"]],
        "entry": queue.ENTRY,
        "window_minutes": WINDOW_MINUTES,
        "ticks": Tick.objects.all()[:PAGE_TICKS],
        "results": queue.latest(PAGE_RESULTS),
        "forms": {
            name: bound if isinstance(bound, form) else form() for name, form in FORMS.items()
        },
        "error": error,
    }
    status = 503 if error else 400 if bound else 200
    return render(request, "ticks/index.html", context, status=status)


def enqueue(form: AddForm | SlowForm) -> str:
    """Queue the task of a valid form and return its id."""
    return queue.send(form.task, *form.cleaned_data.values())


@require_safe
def index(request: HttpRequest) -> HttpResponse:
    return page(request)


@require_POST
def task_create(request: HttpRequest) -> HttpResponse:
    """Queue the task of the posted form and show it."""
    form_class = FORMS.get(request.POST.get("task", ""))
    if form_class is None:
        return HttpResponse("No such task.", status=400, content_type="text/plain")
    form = form_class(request.POST)
    if not form.is_valid():
        return page(request, bound=form)
    try:
        task_id = enqueue(form)
    except queue.ERRORS:
        return page(request, bound=form, error="The broker does not answer. Try again later.")
    return redirect("task-detail", task_id=task_id)


@require_safe
def task_detail(request: HttpRequest, task_id: uuid.UUID) -> HttpResponse:
    task = queue.find(str(task_id))
    if request.GET.get("format") == "json":
        return JsonResponse(task)
    return render(request, "ticks/task.html", {"task": task})


@require_safe
def api_ticks(request: HttpRequest) -> JsonResponse:
    """Return the latest `limit` ticks, the latest first, and the recent schedulers."""
    try:
        limit = int(request.GET.get("limit", API_TICKS))
    except ValueError:
        limit = 0
    if not 1 <= limit <= API_TICKS_MAX:
        return JsonResponse({"error": f"limit: a number from 1 to {API_TICKS_MAX}"}, status=400)
    ticks = list(Tick.objects.values(*TICK_FIELDS)[:limit])
    return JsonResponse({"now": timezone.now(), "schedulers": schedulers(), "ticks": ticks})


@require_POST
def api_tasks(request: HttpRequest) -> JsonResponse:
    """Queue `{"task": name, "args": [...]}`; needs the page's CSRF cookie and X-CSRFToken."""
    try:
        wanted = json.loads(request.body)
        form_class = FORMS[wanted["task"]]
        args = list(wanted["args"])
    except (ValueError, KeyError, TypeError):
        return JsonResponse({"error": 'send {"task": "add", "args": [2, 3]}'}, status=400)
    names = list(form_class.base_fields)
    if len(args) != len(names):
        return JsonResponse({"error": f"args: {', '.join(names)}"}, status=400)
    form = form_class(dict(zip(names, map(str, args), strict=True)))
    if not form.is_valid():
        return JsonResponse({"error": form.errors}, status=400)
    try:
        task_id = enqueue(form)
    except queue.ERRORS:
        return JsonResponse({"error": "the broker does not answer"}, status=503)
    return JsonResponse({"id": task_id, "url": reverse("task-detail", args=[task_id])}, status=202)
